//! Children see the memory of their parents as it was, until one of the two stores to it.
#![no_std]
#![no_main]

use runtime::linux::{self, Child, Ended, Errno, end_of, number, prot};
use runtime::threads::wait_until;
use runtime::{PAGE, Pages, Start, check, equal};

runtime::program!(main);

fn main(_start: &Start) {
    let (Ok(own), Ok(shared)) = (Pages::map(8, prot::READ_WRITE), Pages::shared(2)) else {
        return check("there are pages for parent and child", false);
    };
    copies(own, shared);
    shared_pages(shared);
    generations(shared);
    siblings(own, shared);
    rounds(own);
}

fn copies(own: Pages, shared: Pages) {
    own.fill(1);
    let stores = end_of(|| {
        let inherited = own.holds(1);
        // A store of what is there makes a copy of the page, with all the rest.
        (0..own.count()).for_each(|page| own.store(page * PAGE, own.load(page * PAGE)));
        let copied = own.holds(1);
        own.fill(2);
        u8::from(!(inherited && copied && own.holds(2)))
    });
    equal("a child has what its parent had, and what it stores itself", stores, Ok(Ended::Exited(0)));
    check("the parent does not see what a child stores", own.holds(1));

    shared.store(0, 0);
    let child = Child::run(|| {
        let is_as_it_was = wait_until(|| shared.load(0) == 1) && own.holds(1);
        own.fill(4);
        u8::from(!is_as_it_was)
    });
    own.fill(3);
    shared.store(0, 1);
    equal("a child does not see what its parent stores", child.and_then(Child::wait), Ok(Ended::Exited(0)));
    check("the parent has what it has stored itself", own.holds(3));
}

fn shared_pages(shared: Pages) {
    let (question, answer) = (0, PAGE);
    shared.store(question, 0);
    shared.store(answer, 0);
    let child = Child::run(|| {
        let is_asked = wait_until(|| shared.load(question) == 6);
        shared.store(answer, 7 * shared.load(question));
        u8::from(!is_asked)
    });
    shared.store(question, 6);
    equal("a child sees what is stored to a page that is shared", child.and_then(Child::wait), Ok(Ended::Exited(0)));
    equal("the parent sees what the child has stored there", shared.load(answer), 42);
}

/// Each generation stores its number to a page of its own and forks the next.
fn generations(shared: Pages) {
    const LAST: u8 = 5;
    fn descend(own: Pages, shared: Pages, generation: u8) -> u8 {
        own.store(0, u64::from(generation));
        shared.store(8 * u64::from(generation), own.load(0));
        let below = if generation == LAST {
            Ok(Ended::Exited(LAST - 1))
        } else {
            end_of(|| descend(own, shared, generation + 1))
        };
        // What the next one exits with is one less than what this one does, if nobody has changed the page.
        let is_unchanged = own.load(0) == u64::from(generation);
        match below {
            Ok(Ended::Exited(code)) if is_unchanged => code + 1,
            _ => 100,
        }
    }
    let Ok(own) = Pages::map(1, prot::READ_WRITE) else { return check("there is a page to inherit", false) };
    let ended = end_of(|| descend(own, shared, 1));
    equal("five generations end one after the other", ended, Ok(Ended::Exited(LAST - 1 + LAST)));
    let left = (1..=u64::from(LAST)).all(|generation| shared.load(8 * generation) == generation);
    check("each generation had a page of its own", left && own.load(0) == 0);
}

fn siblings(own: Pages, shared: Pages) {
    const COUNT: usize = 8;
    let own_pages = || 0..own.count();
    own.fill(4);
    let children: [_; COUNT] = core::array::from_fn(|number| {
        let number = number as u64;
        Child::run(|| {
            own.store(number * PAGE, number);
            linux::yield_now();
            let others = own_pages().filter(|other| *other != number);
            let seen = others.filter(|other| own.load(other * PAGE) < 8).count();
            shared.store(8 * number, own.load(number * PAGE) + 1000);
            u8::from(seen != 0)
        })
    });
    let ended = children.map(|child| child.and_then(Child::wait));
    equal("eight children at once end well", ended, [Ok(Ended::Exited(0)); COUNT]);
    check(
        "each of the eight has seen what it has stored",
        own_pages().all(|number| shared.load(8 * number) == number + 1000),
    );
    check("nothing of the eight has reached the parent's copy", own.holds(4));
    // SAFETY: without a place for the status, it changes no memory.
    let nobody = unsafe { linux::call(number::WAIT4, [u64::MAX, 0, 0, 0, 0, 0]) };
    equal("all children were waited for", nobody, Err(Errno::CHILD));
}

fn rounds(own: Pages) {
    const ROUNDS: u32 = 1000;
    own.fill(5);
    let well = (0..ROUNDS).filter(|round| {
        let [code, ..] = round.to_le_bytes();
        let ended = end_of(|| {
            for page in [0, 3, 7] {
                own.store(page * PAGE, u64::from(*round));
            }
            code
        });
        ended == Ok(Ended::Exited(code))
    });
    equal("1000 children come, store to three pages, and go", well.count(), ROUNDS as usize);
    check("the parent's pages are as they were before the 1000", own.holds(5));
}
