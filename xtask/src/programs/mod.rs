//! Real programs under pagewarden.
//!
//! [`equal`]: the same program natively and under `run --verify` prints the same and ends the same.
//! [`limits`], [`life`], [`errors`]: what pagewarden adds, which no native run can show.
mod equal;
mod errors;
mod life;
mod limits;
mod table;

use anyhow::{Result, bail};

use crate::ProgramsArgs;
use crate::lab::{Lab, User};
use crate::packages::absent;
use crate::step::{Steps, Verdict};

/// A case that only makes sense under pagewarden.
pub(crate) struct Behaviour {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [&'static str],
    /// Files of `tests/programs` that the case wants in its folder.
    pub(crate) files: &'static [&'static str],
    pub(crate) check: fn(&Lab) -> Result<()>,
}

fn behaviours() -> impl Iterator<Item = &'static Behaviour> {
    limits::CASES.iter().chain(life::CASES).chain(errors::CASES)
}

/// `cargo xtask programs`.
pub(crate) fn run(args: &ProgramsArgs) -> Result<()> {
    if args.list {
        table::PROGRAMS
            .iter()
            .map(|case| case.name)
            .chain(behaviours().map(|case| case.name))
            .for_each(|name| println!("{name}"));
        return Ok(());
    }
    let lab = Lab::new(&args.subject)?;
    run_in(&lab, &args.names)?.summary("cases")
}

/// Runs the cases whose name contains one of `names`; all if there are none.
pub(crate) fn run_in(lab: &Lab, names: &[String]) -> Result<Steps> {
    for name in names {
        let known = table::PROGRAMS.iter().map(|case| case.name).chain(behaviours().map(|case| case.name));
        if !known.into_iter().any(|case| case.contains(name.as_str())) {
            bail!("no case has {name} in its name");
        }
    }
    let wanted = |case: &str| names.is_empty() || names.iter().any(|name| case.contains(name.as_str()));
    let mut steps = Steps::default();
    for case in table::PROGRAMS.iter().filter(|case| wanted(case.name)) {
        steps.run(case.name, || match absent(case.needs) {
            Some(reason) => Ok(Verdict::Skipped(reason)),
            None => equal::check(lab, case).map(|()| Verdict::Passed),
        });
    }
    let behaviours: Vec<_> = behaviours().filter(|case| wanted(case.name)).collect();
    if lab.has_warden() {
        for case in behaviours {
            steps.run(case.name, || check_behaviour(lab, case));
        }
    } else if !behaviours.is_empty() {
        let reason = || Ok(Verdict::Skipped("they show what pagewarden adds, and this is a native run".to_owned()));
        steps.run(&format!("{} other cases", behaviours.len()), reason);
    }
    Ok(steps)
}

fn check_behaviour(lab: &Lab, case: &Behaviour) -> Result<Verdict> {
    if let Some(reason) = absent(case.needs) {
        return Ok(Verdict::Skipped(reason));
    }
    lab.refresh(User::Same, case.files)?;
    (case.check)(lab).map(|()| Verdict::Passed)
}

/// Every program that some case needs.
#[cfg(test)]
pub(crate) fn needs() -> impl Iterator<Item = &'static str> {
    let equal = table::PROGRAMS.iter().flat_map(|case| case.needs);
    equal.chain(behaviours().flat_map(|case| case.needs)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_files_exist() {
        let names: Vec<&str> =
            table::PROGRAMS.iter().map(|case| case.name).chain(behaviours().map(|case| case.name)).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        let files = table::PROGRAMS.iter().flat_map(|case| case.files).chain(behaviours().flat_map(|case| case.files));
        for file in files {
            assert!(crate::root().join("tests/programs").join(file).is_file(), "{file}");
        }
    }
}
