//! Programs as text: a step a line, so that they travel over a pipe and into a bug report.
//!
//! A line is the call's name and its arguments: numbers in hexadecimal, addresses as `w+0x3000` (window),
//! `b-0x10` (break) or `r4+0x1000` (the answer of step 4), files by name. Parsing a line allocates nothing: the
//! guest parses between programs and must not disturb its own address space.

use std::fmt;

use super::program::{Arg, Base, Call, FileKind, Program, Step};

/// Ends the text of a program.
pub const END: &str = "end";

/// What is wrong with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// No such call.
    #[error("no such call")]
    Call,
    /// An argument is neither a number, nor an address, nor a file.
    #[error("argument {0} is neither a number, nor an address, nor a file")]
    Arg(usize),
    /// The call takes fewer or more arguments.
    #[error("wrong number of arguments")]
    Arity,
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Value(value) => write!(f, "{value:#x}"),
            Self::File(kind) => f.write_str(kind.name()),
            Self::At(base, delta) => {
                match base {
                    Base::Window => f.write_str("w")?,
                    Base::Break => f.write_str("b")?,
                    Base::Answer(step) => write!(f, "r{step}")?,
                }
                write!(f, "{}{:#x}", if delta < 0 { '-' } else { '+' }, delta.unsigned_abs())
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.call.name())?;
        self.used_args().iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        writeln!(f, "{END}")
    }
}

/// The step that `line` stands for.
///
/// # Errors
/// [`ParseError`] if it stands for none.
pub fn parse_step(line: &str) -> Result<Step, ParseError> {
    let mut words = line.split_ascii_whitespace();
    let call = words.next().and_then(Call::from_name).ok_or(ParseError::Call)?;
    let mut args = [Arg::Value(0); 6];
    let mut count = 0;
    for word in words {
        let place = args.get_mut(count).ok_or(ParseError::Arity)?;
        *place = parse_arg(word).ok_or(ParseError::Arg(count))?;
        count += 1;
    }
    if count != call.arity() {
        return Err(ParseError::Arity);
    }
    Ok(Step { call, args })
}

/// The programs that `text` holds, each ended by a line [`END`] or by the end of the text.
///
/// # Errors
/// The number of the first wrong line, from 1, and what is wrong with it.
pub fn parse_programs(text: &str) -> Result<Vec<Program>, (usize, ParseError)> {
    let mut programs = Vec::new();
    let mut program = Program::default();
    for (index, line) in text.lines().enumerate() {
        match line.trim() {
            END => programs.push(std::mem::take(&mut program)),
            "" => {}
            line if line.starts_with('#') => {}
            line => program.steps.push(parse_step(line).map_err(|error| (index + 1, error))?),
        }
    }
    if !program.steps.is_empty() {
        programs.push(program);
    }
    Ok(programs)
}

fn parse_arg(word: &str) -> Option<Arg> {
    if let Some(kind) = FileKind::from_name(word) {
        return Some(Arg::File(kind));
    }
    if let Some(value) = parse_number(word) {
        return Some(Arg::Value(value));
    }
    let sign = word.find(['+', '-'])?;
    let (base, delta) = word.split_at(sign);
    let base = match base {
        "w" => Base::Window,
        "b" => Base::Break,
        answer => Base::Answer(answer.strip_prefix('r')?.parse().ok()?),
    };
    let magnitude = parse_number(delta.get(1..)?)?;
    let delta =
        if delta.starts_with('-') { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
    Some(Arg::At(base, delta?))
}

fn parse_number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::generate::generate;

    #[test]
    fn printed_programs_parse_to_themselves() {
        for seed in 0..200 {
            let program = generate(seed, 40);
            assert_eq!(parse_programs(&program.to_string()).unwrap(), [program]);
        }
    }

    #[test]
    fn extreme_deltas_survive() {
        for arg in [Arg::At(Base::Break, i64::MIN), Arg::At(Base::Answer(7), i64::MAX), Arg::Value(u64::MAX)] {
            let step = Step::new(Call::Brk, &[arg]);
            assert_eq!(parse_step(&step.to_string()), Ok(step));
        }
    }

    #[test]
    fn wrong_lines_are_refused() {
        assert_eq!(parse_step("nmap 0x0"), Err(ParseError::Call));
        assert_eq!(parse_step("munmap 0x0"), Err(ParseError::Arity));
        assert_eq!(parse_step("brk 0x0 0x0"), Err(ParseError::Arity));
        assert_eq!(parse_step("munmap 0x0 q+0x1"), Err(ParseError::Arg(1)));
        assert_eq!(parse_programs("read 0x0\nend\nrad 0x0\n"), Err((3, ParseError::Call)));
    }
}
