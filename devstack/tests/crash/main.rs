//! What is left of an export when something breaks: every step of it × every fault (`matrix`), workers that are killed one
//! after the other while one export is under way (`kills`), and many of both at random (`soak`). PostgreSQL and RabbitMQ are private to this target, because it restarts them.

mod broker;
mod door;
mod faults;
mod kills;
mod matrix;
mod mishaps;
mod reference;
mod remains;
mod servers;
#[path = "../service/mod.rs"]
mod service;
mod soak;
mod steps;
mod system;
