//! Real processes and real initiators. Each test starts its own nodes on free ports of loopback.

mod access;
mod arbiter;
mod bad_input;
mod chap;
mod cluster;
mod config;
mod conformance;
mod crash;
mod demo;
mod devices;
mod events;
mod failover;
mod filesystem;
mod fleet;
mod front;
mod guest;
mod initiators;
mod pair;
mod peer;
mod repeater;
mod restart;
mod service;
mod spdk_client;
mod split;
mod tgt;
