//! Rust source, line by line, with code and comments apart and the contents of strings left out.
//!
//! Knows comments (nested too), strings (raw, byte and C ones too), characters and lifetimes; nothing else.

/// One line.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) code: String,
    pub(super) comment: String,
}

/// A file.
pub(super) struct Source {
    pub(super) lines: Vec<Line>,
}

#[derive(Clone, Copy)]
enum State {
    Code,
    LineComment,
    BlockComment {
        depth: usize,
    },
    /// `hashes` is none where a backslash escapes.
    Text {
        hashes: Option<usize>,
    },
}

impl Source {
    /// Takes `text` apart. Text that does not compile gives some answer, never a panic.
    pub(super) fn read(text: &str) -> Self {
        let mut lines = vec![Line::default()];
        let mut state = State::Code;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == '\n' {
                if matches!(state, State::LineComment) {
                    state = State::Code;
                }
                lines.push(Line::default());
                rest = &rest[1..];
                continue;
            }
            let (next, taken) = step(state, rest, lines.last().map_or("", |line| &line.code));
            let taken = &rest[..taken];
            if let Some(line) = lines.last_mut() {
                match (state, next) {
                    (State::Code, State::Code) => line.code.push_str(taken),
                    (State::LineComment | State::BlockComment { .. }, _) => line.comment.push_str(taken),
                    _ => line.code.push(' '),
                }
            }
            state = next;
            rest = &rest[taken.len()..];
        }
        Self { lines }
    }
}

/// The state after the next piece of `rest`, and how many bytes that piece has; a newline is never within.
fn step(state: State, rest: &str, before: &str) -> (State, usize) {
    let one = rest.chars().next().map_or(1, char::len_utf8);
    match state {
        State::Code => step_code(rest, before, one),
        State::LineComment => (state, one),
        State::BlockComment { depth } if rest.starts_with("/*") => (State::BlockComment { depth: depth + 1 }, 2),
        State::BlockComment { depth: 1 } if rest.starts_with("*/") => (State::Code, 2),
        State::BlockComment { depth } if rest.starts_with("*/") => (State::BlockComment { depth: depth - 1 }, 2),
        State::BlockComment { .. } => (state, one),
        State::Text { hashes: None } if rest.starts_with("\\\\") || rest.starts_with("\\\"") => (state, 2),
        State::Text { hashes: None } if rest.starts_with('"') => (State::Code, 1),
        State::Text { hashes: Some(count) } if rest.starts_with(&format!("\"{}", "#".repeat(count))) => {
            (State::Code, 1 + count)
        }
        State::Text { .. } => (state, one),
    }
}

fn step_code(rest: &str, before: &str, one: usize) -> (State, usize) {
    if rest.starts_with("//") {
        return (State::LineComment, 2);
    }
    if rest.starts_with("/*") {
        return (State::BlockComment { depth: 1 }, 2);
    }
    if rest.starts_with('"') {
        return (State::Text { hashes: None }, 1);
    }
    if let Some(taken) = raw_string(rest).filter(|_| !ends_in_word(before)) {
        return (State::Text { hashes: Some(taken.hashes) }, taken.length);
    }
    match character(rest) {
        Some(length) => (State::Code, length),
        None => (State::Code, one),
    }
}

struct RawStart {
    hashes: usize,
    length: usize,
}

/// The start of a raw string: `r"`, `br#"`, `cr##"` and so on.
fn raw_string(rest: &str) -> Option<RawStart> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| rest.starts_with(*prefix) && !rest[prefix.len()..].starts_with(is_name))?;
    let after = &rest[prefix.len()..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(RawStart { hashes, length: prefix.len() + hashes + 1 })
}

/// The length of a character literal at the start of `rest`; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('\'')?;
    let first = after.chars().next().filter(|first| *first != '\n')?;
    let body =
        if first == '\\' { 1 + after[1..].chars().next().filter(|c| *c != '\n')?.len_utf8() } else { first.len_utf8() };
    if first == '\\' {
        return after[body..]
            .find('\'')
            .filter(|end| !after[body..body + end].contains('\n'))
            .map(|end| 1 + body + end + 1);
    }
    after[body..].starts_with('\'').then_some(1 + body + 1)
}

/// Whether a name may hold it.
pub(super) fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(is_name)
}

/// Whether `word` stands in `text`, not as a part of a longer one.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| !ends_in_word(&text[..at]) && !text[at + word.len()..].starts_with(is_name))
}
