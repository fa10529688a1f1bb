//! Memory that another process also has: windows, copies that end where memory does, signals, an adversary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod adversary;
mod again;
mod copies;
mod events;
mod lost;
mod managed;
mod signals;
mod steps;
mod support;
mod threads;
mod windows;
