//! A clerk answers letters of another world, which lies about them while they are read.
//!
//! `cargo run -p pagewarden --example mailbox`. Both worlds are in the software machine; the other one has its turn
//! between any two steps of ours.

mod post;

use std::error::Error;
use std::sync::mpsc;

use post::{Border, Cheats, Clerk, Served, Writer};

/// What an example ends with if something goes wrong.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let border = Border::new()?;
    let clerk = Clerk::new(&border)?;
    let (sender, answers) = mpsc::channel();
    for (cheats, is_protected) in [(Cheats::No, false), (Cheats::Yes, false), (Cheats::Yes, true)] {
        let mut writer = Writer::new(&border, &["how are you?"], sender.clone());
        writer.cheats = cheats;
        border.other.set_agent(writer);
        let served = loop {
            let served = if is_protected { clerk.serve_protected(&border)? } else { clerk.serve()? };
            if served != Served::Nothing {
                break served;
            }
        };
        // Its next turn, in which it reads the answer.
        clerk.serve()?;
        let what = match (cheats, is_protected) {
            (Cheats::No, _) => "a letter",
            (Cheats::Yes, false) => "one that changes while it is copied",
            (Cheats::Yes, true) => "the same, with the other world kept out meanwhile",
        };
        println!("{what:<50} {served:?}: {}", answers.recv()?);
    }
    Ok(())
}
