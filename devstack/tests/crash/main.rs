//! Exports while something breaks: every step of an export × every fault (`matrix`), workers that are killed one after the
//! other while one export runs (`kills`), and many exports under random faults (`soak`). PostgreSQL and RabbitMQ are private
//! to this target, because it restarts them.

mod broker;
mod cleanup_checks;
mod faults;
mod kills;
mod matrix;
mod random_faults;
mod reference;
mod servers;
mod soak;
mod steps;
mod system;
