//! Memory that the guest itself lets become executable no more.

use super::{RW, check, config, fixed, manager, mprotect};
use crate::error::Errno;
use crate::ledger::{Limits, ResourceLedger};
use crate::linux::{MdweFlags, Request};
use crate::manager::{Cause, PageManager, Refusal, WxPolicy};
use crate::model::Platform;

const READ_EXEC: u64 = 5;
const ALL: u64 = 7;

fn set(bits: u64) -> Request {
    Request::SetMdwe { flags: MdweFlags::from_bits_retain(bits) }
}

fn denied<T>() -> Result<T, Refusal> {
    Err(Errno::Acces.into())
}

#[test]
fn flags_are_set_once() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    for bits in [2, 4, 5, 1 << 32] {
        assert_eq!(manager.call(&set(bits)), Err(Errno::Inval.into()), "{bits}");
    }
    assert_eq!(manager.call(&set(0)), Ok(0));
    assert_eq!(manager.call(&Request::Mdwe), Ok(0));
    assert_eq!(manager.call(&set(1)), Ok(0));
    assert_eq!(manager.call(&set(1)), Ok(0));
    assert_eq!(manager.provider().operations(), 1, "the platform is told once");
    for bits in [0, 3] {
        assert_eq!(manager.call(&set(bits)), Err(Errno::Perm.into()), "{bits}");
    }
    assert_eq!(manager.call(&set(4)), Err(Errno::Inval.into()));
    assert_eq!(manager.call(&Request::Mdwe), Ok(1));
}

#[test]
fn what_is_executable_stays_so_and_nothing_becomes_it() {
    let (_ledger, mut manager) = manager(Limits::UNLIMITED);
    manager.call(&fixed(1, 1, ALL)).unwrap();
    manager.call(&fixed(2, 1, RW)).unwrap();
    manager.call(&fixed(3, 1, READ_EXEC)).unwrap();
    manager.call(&set(1)).unwrap();
    for request in [fixed(4, 1, ALL), mprotect(1, 1, ALL), mprotect(2, 1, READ_EXEC), mprotect(3, 1, ALL)] {
        assert_eq!(manager.call(&request), denied(), "{request:?}");
    }
    manager.call(&mprotect(1, 1, READ_EXEC)).unwrap();
    manager.call(&fixed(5, 1, READ_EXEC)).unwrap();
    manager.call(&mprotect(3, 1, RW)).unwrap();
    assert_eq!(manager.call(&mprotect(3, 1, READ_EXEC)), denied());
    check(&manager);
}

#[test]
fn children_and_new_programs_inherit_unless_told_otherwise() {
    for (bits, inherited) in [(1, 1), (3, 0)] {
        let (ledger, mut parent) = manager(Limits::UNLIMITED);
        parent.call(&set(bits)).unwrap();
        let account = ledger.root().child(Limits::UNLIMITED);
        let mut child = parent.prepare_fork(account).unwrap().finish(Platform::default());
        assert_eq!(child.call(&Request::Mdwe), Ok(inherited), "{bits}");
        let features = parent.config().features;
        parent.set_attributes(parent.attributes().after_exec(features));
        assert_eq!(parent.call(&Request::Mdwe), Ok(inherited), "{bits}");
    }
}

#[test]
fn the_guests_own_rule_is_not_put_down_to_the_policy() {
    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let mut config = config(&ledger);
    config.policy.wx = WxPolicy::Deny;
    let mut manager = PageManager::new(config, Platform::default());
    let by_policy = Err(Refusal { errno: Errno::Acces, cause: Cause::WxPolicy });
    assert_eq!(manager.call(&fixed(1, 1, ALL)), by_policy);
    assert_eq!(manager.call(&Request::Mdwe), Ok(0), "the guest sees what it has set");
    manager.call(&set(1)).unwrap();
    assert_eq!(manager.call(&fixed(1, 1, ALL)), denied());
}
