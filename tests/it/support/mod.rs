//! What the tests share: a hub of its own for each test, processes, peers and programs.

pub mod app;
pub mod browser;
pub mod database;
pub mod hubs;
pub mod log;
pub mod message;
pub mod notification;
pub mod process;
pub mod programs;
pub mod receiver;
pub mod role;
pub mod smtp;
pub mod sql;
pub mod stub;
pub mod vendor;
pub mod wait;
pub mod wire;
