//! Each call by name, by programs that make them.

mod bulk;
mod memory;
mod shm;
