//! Two processes exchange records through one memory object; the calls between them carry only numbers.
//!
//! `cargo run -p pagewarden --example shared_channel`.

#[path = "../common/mod.rs"]
mod common;
mod ring;

use std::sync::Arc;

use common::{Outcome, World, use_of};
use pagewarden::Limits;
use pagewarden::cap::{FrameAllocatorCap, Rights};
use ring::{Receiver, Sender};

fn main() -> Outcome<()> {
    let world = World::new()?;
    let (pool, ours, theirs) =
        (world.account(Limits::UNLIMITED), world.account(Limits::UNLIMITED), world.account(Limits::UNLIMITED));
    let (producer, consumer) = (world.process(ours.clone())?, world.process(theirs.clone())?);
    let frames = Arc::new(FrameAllocatorCap::new(&world.pager, pool));
    let frames = producer.give(frames, Rights::empty(), *b"frames\0\0")?;

    let (mut sender, handles) = Sender::new(&world, (&producer, frames), &consumer)?;
    let mut receiver = Receiver::new(&world, &consumer, handles)?;
    println!("pages paid: producer {}, consumer {}", use_of(&ours).1, use_of(&theirs).1);

    for text in ["one object,", "shown by two processes,", "each record stored once,", "and never copied between them"]
    {
        let number = sender.send(text.as_bytes())?.ok_or("the ring is full")?;
        // This is the call: a number, and nothing else.
        let record = receiver.receive(number)?;
        println!("{number}: {}", String::from_utf8_lossy(&record));
    }
    drop((producer, consumer));
    println!("pages paid in the end: producer {}, consumer {}", use_of(&ours).1, use_of(&theirs).1);
    Ok(())
}
