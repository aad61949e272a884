//! The RabbitMQ side: topology, messages, publishing and consuming. A message only says that an export has work. The ledger
//! knows what the work is and who holds it, so lost, repeated and reordered messages do no harm.

mod broker;
mod consume;
mod dead_letters;
mod message;
mod relay;
mod trace_headers;

pub use broker::{Broker, Depths, QueueError};
pub use consume::{Incoming, Subscription};
pub use dead_letters::{DeadLetter, DeadLetterAction};
pub use message::JobMessage;
pub use relay::{Relay, run_relay};
