//! Endpoints: one process calls, another answers; two words each way.
//!
//! A call waits in the queue until it is received, then for its answer, and is forgotten if its thread ends meanwhile. One
//! call at a time is received and not answered.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pagewarden::Errno;
use pagewarden::cap::{Interface, InterfaceId};
use pagewarden_kernel_abi as abi;
use spin::Mutex;

use crate::schedule;

/// Two words.
pub(super) type Words = [u64; 2];

/// The most calls that wait for one endpoint.
const CALLS_MOST: usize = 64;

#[derive(Debug, Default)]
struct State {
    next: u64,
    calls: VecDeque<(u64, Words)>,
    received: Option<u64>,
    answers: Vec<(u64, Words)>,
}

/// Where calls of one process reach another.
#[derive(Debug, Default)]
pub(crate) struct Endpoint(Mutex<State>);

impl Interface for Endpoint {
    const ID: InterfaceId = InterfaceId(abi::interface::ENDPOINT);
}

/// A call that has not been answered. Dropped, it is forgotten.
#[derive(Debug)]
pub(crate) struct Asked {
    endpoint: Arc<Endpoint>,
    number: u64,
}

impl Endpoint {
    /// Calls whoever receives.
    ///
    /// # Errors
    /// `EAGAIN` if too many wait already.
    pub(super) fn call(self: &Arc<Self>, words: Words) -> Result<Asked, Errno> {
        let mut state = self.0.lock();
        if state.calls.len() >= CALLS_MOST {
            return Err(Errno::Again);
        }
        let number = state.next;
        state.next += 1;
        state.calls.push_back((number, words));
        drop(state);
        schedule::event();
        Ok(Asked { endpoint: Arc::clone(self), number })
    }

    /// The next call, if there is one.
    ///
    /// # Errors
    /// `EBUSY` if the one before was not answered.
    pub(super) fn receive(&self) -> Result<Option<Words>, Errno> {
        let mut state = self.0.lock();
        if state.received.is_some() {
            return Err(Errno::Busy);
        }
        let Some((number, words)) = state.calls.pop_front() else { return Ok(None) };
        state.received = Some(number);
        Ok(Some(words))
    }

    /// Answers the call that was received last.
    ///
    /// # Errors
    /// `EINVAL` if there is none.
    pub(super) fn reply(&self, words: Words) -> Result<(), Errno> {
        let mut state = self.0.lock();
        let number = state.received.take().ok_or(Errno::Inval)?;
        // Whoever has ended meanwhile does not read it.
        if number != FORGOTTEN {
            state.answers.push((number, words));
        }
        drop(state);
        schedule::event();
        Ok(())
    }
}

/// In the place of a call that was received and whose thread has ended.
const FORGOTTEN: u64 = u64::MAX;

impl Asked {
    /// The answer, once there is one.
    pub(super) fn answer(&self) -> Option<Words> {
        let mut state = self.endpoint.0.lock();
        let place = state.answers.iter().position(|(number, _)| *number == self.number)?;
        Some(state.answers.swap_remove(place).1)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.endpoint.0.lock();
        state.calls.retain(|(number, _)| *number != self.number);
        state.answers.retain(|(number, _)| *number != self.number);
        if state.received == Some(self.number) {
            state.received = Some(FORGOTTEN);
        }
    }
}
