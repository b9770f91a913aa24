//! The cloud side.
#![forbid(unsafe_code)]

pub mod command;
pub mod config;
pub mod hub;
pub mod ingest;
mod mqtt;
mod publisher;
pub mod secrets;
mod service;
pub mod store;
mod view;
