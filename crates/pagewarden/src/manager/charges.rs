//! What a space holds on its account.

use crate::ledger::{Account, Charge, OverLimit, Resource};

use super::space::State;

/// One charge a resource. Invariant: between requests each equals [`State::charged`], except that a stack
/// which the platform grew may not have been noted yet.
#[derive(Debug)]
pub(super) struct Charges([Charge; Resource::OF_MAP.len()]);

impl Charges {
    /// Nothing held yet.
    pub(super) fn new(account: &Account) -> Self {
        Self(Resource::OF_MAP.map(|resource| account.empty_charge(resource)))
    }

    /// Charges what `state` needs more than is held. If an account refuses, what was raised before stays
    /// until [`Self::lower_to`] settles with the state in force.
    pub(super) fn raise_to(&self, state: &State) -> Result<(), OverLimit> {
        self.0.iter().try_for_each(|charge| {
            // Most requests move one or two of the amounts, and the accounts are shared: the others are left alone.
            match state.charged(charge.resource()).saturating_sub(charge.amount()) {
                0 => Ok(()),
                more => charge.raise(more),
            }
        })
    }

    /// Gives back what is held beyond what `state` needs.
    pub(super) fn lower_to(&self, state: &State) {
        for charge in &self.0 {
            let over = charge.amount().saturating_sub(state.charged(charge.resource()));
            if over > 0 {
                charge.give_back(over);
            }
        }
    }

    /// Charges what is there already and cannot be refused.
    pub(super) fn raise_past_limit(&self, state: &State) {
        for charge in &self.0 {
            charge.raise_past_limit(state.charged(charge.resource()).saturating_sub(charge.amount()));
        }
    }

    /// What is held of `resource`.
    pub(super) fn held(&self, resource: Resource) -> u64 {
        self.0.iter().find(|charge| charge.resource() == resource).map_or(0, Charge::amount)
    }
}
