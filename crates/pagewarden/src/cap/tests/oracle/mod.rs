//! Processes on the software machine beside the model of them ([`crate::model::capability`]): random steps, steps for
//! which there is no frame, and all short sequences in a small world.

mod alphabet;
mod exhaustive;
mod failing;
mod ghost;
mod perform;
mod random;
mod steps;
mod world;

use world::{Given, Scope, World};
