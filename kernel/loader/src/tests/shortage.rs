//! Too little of something: what fails leaves nothing, and with one more of it at a time it works in the end.

use super::elf::Elf;
use super::{Space, World, regions};
use crate::{Arguments, Image, LoadError, map_stack};
use pagewarden::manager::{Cause, SpaceConfig};
use pagewarden::pager::Fault;
use pagewarden::{Errno, Limits, Resource};

type Load = fn(&Image<'_>, &Space) -> Result<(), LoadError>;

fn map_image(image: &Image<'_>, space: &Space) -> Result<(), LoadError> {
    image.map(space)
}

fn map_whole_stack(image: &Image<'_>, space: &Space) -> Result<(), LoadError> {
    let argument = [b'a'; 8000];
    let arguments = Arguments { image: *image, name: b"name", others: &[&argument], random: [1; 16] };
    map_stack(space, &arguments).map(|_| ())
}

/// Tries to load into a space; whether that worked.
fn attempt(world: &World, space: &Space, load: Load, is_expected: impl Fn(LoadError) -> bool) -> bool {
    let file = Elf::usual().to_bytes();
    let before = world.usage();
    match load(&Image::parse(&file).unwrap(), space) {
        Ok(()) => true,
        Err(error) => {
            assert!(is_expected(error), "{error}");
            assert_eq!(regions(space), []);
            assert_eq!(world.usage(), before);
            false
        }
    }
}

/// How much of `resource` it takes.
fn least(resource: Resource, load: Load, is_expected: impl Fn(LoadError) -> bool) -> u64 {
    for most in 0..100 {
        let world = World::new();
        let account = world.ledger.root().child(Limits::UNLIMITED.with(resource, most));
        let Ok(space) = world.space_of(SpaceConfig { account, ..world.config() }) else { continue };
        let has_worked = attempt(&world, &space, load, &is_expected);
        drop(space);
        world.check_empty();
        if has_worked {
            return most;
        }
    }
    panic!("it never works");
}

fn is_out_of_memory(error: LoadError) -> bool {
    Errno::from(error) == Errno::NoMem && matches!(error, LoadError::Copy(fault) if fault.fault == Fault::OutOfMemory)
}

fn is_limit(error: LoadError, resource: Resource) -> bool {
    matches!(error, LoadError::Refused(refusal) if refusal.cause == Cause::Limit(resource))
}

#[test]
fn an_image_takes_what_its_pages_and_tables_take_and_fails_with_less() {
    let least = |resource| least(resource, map_image, |error| is_limit(error, resource));
    assert_eq!(least(Resource::Virtual), 7);
    assert_eq!(least(Resource::Regions), 3);
    // What was writable once stays paid for.
    assert_eq!(least(Resource::Committed), 7);
}

#[test]
fn an_image_takes_the_frames_of_what_is_copied_and_fails_with_less() {
    // Two pages of text, one of constants, two of data.
    assert_eq!(least(Resource::Frames, map_image, is_out_of_memory), 5);
    // The root, one of each level below it, and two of the lowest.
    assert_eq!(least(Resource::TableFrames, map_image, is_out_of_memory), 5);
}

#[test]
fn a_stack_fails_with_less_than_it_takes() {
    let limit = |resource| least(resource, map_whole_stack, |error| is_limit(error, resource));
    assert_eq!(limit(Resource::Virtual), 4);
    assert_eq!(limit(Resource::Regions), 1);
    assert_eq!(limit(Resource::Committed), 4);
    assert_eq!(least(Resource::Frames, map_whole_stack, is_out_of_memory), 3, "two for the argument, one below");
    assert_eq!(least(Resource::TableFrames, map_whole_stack, is_out_of_memory), 4);
}

#[test]
fn a_machine_without_frames_gets_back_all_that_were_taken() {
    // One a table below the root, and one a page that is copied to.
    for (load, frames_taken) in [(map_image as Load, 4 + 5), (map_whole_stack, 3 + 3)] {
        let mut failures = 0;
        for frames in 2.. {
            let world = World::with_frames(frames);
            let Ok(space) = world.space_of(world.config()) else { continue };
            let has_worked = attempt(&world, &space, load, is_out_of_memory);
            drop(space);
            world.check_empty();
            if has_worked {
                break;
            }
            failures += 1;
        }
        assert_eq!(failures, frames_taken);
    }
}
