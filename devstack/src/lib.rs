//! The whole system on one machine: private servers, the api and the workers, for `make run` and for the tests.
//!
//! The parts are public so that tests can start servers, put a [`proxy`] in front of them, kill processes and limit their
//! memory. A deployment needs nothing of this crate.

pub mod api_key;
pub mod binaries;
pub mod clean;
pub mod config;
pub mod console;
pub mod data_lock;
pub mod embedded_s3;
pub mod error;
mod http_listener;
pub mod launch;
mod listen;
pub mod memory_limit;
pub mod orphans;
pub mod ports;
pub mod postgres;
mod postgres_folder;
pub mod private_folder;
pub mod proxy;
pub mod rabbitmq;
pub mod run;
pub mod s3_faults;
mod s3_handler;
pub mod s3_operation;
mod s3_range;
pub mod sample_export;
pub mod scratch_database;
pub mod scratch_dir;
pub mod seaweedfs;
pub mod secrets;
pub mod seed;
pub mod servers;
pub mod signals;
pub mod stack_env;
pub mod supervisor;
pub mod trial_roles;
pub mod wait;
pub mod with_servers;

pub use error::{Error, Result};
pub use ports::free_port;
pub use proxy::Proxy;
pub use s3_faults::S3Faults;
