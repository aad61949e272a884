//! Tests of the devstack's own parts, and of what stands beside the services: dashboards, alerts, the object store. None
//! needs the api or a worker, so one binary has them all: linking costs more than running them.

mod command_line;
mod encryption;
mod observability;
mod postgres_role;
mod proxy;
mod s3_faults;
mod seed;
mod store_conformance;
mod trial_roles;
