//! Tests that a page names: they have to be there, under that name.
//!
//! What looks like the name of a test is a sentence: words in backticks, joined by at least three underscores.

use std::collections::HashSet;

/// Names of tests have at least so many underscores.
const UNDERSCORES: usize = 3;

/// The tests that `text`, the page called `page`, names and that none of the `files` has.
pub(super) fn missing(page: &str, text: &str, files: &[&str]) -> Vec<String> {
    let functions: HashSet<&str> = files.iter().flat_map(|file| functions(file)).collect();
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let quoted = line.split('`').skip(1).step_by(2);
        let unknown = quoted.filter(|name| is_sentence(name) && !functions.contains(name));
        problems.extend(unknown.map(|name| format!("{page}:{number}: there is no test {name}")));
    }
    problems
}

fn is_sentence(name: &str) -> bool {
    let is_name = name.chars().all(|letter| letter == '_' || letter.is_ascii_lowercase() || letter.is_ascii_digit());
    is_name && name.matches('_').count() >= UNDERSCORES
}

/// The names of all functions in a file.
fn functions(file: &str) -> impl Iterator<Item = &str> {
    file.split("fn ")
        .skip(1)
        .filter_map(|rest| rest.split(|letter: char| letter != '_' && !letter.is_alphanumeric()).next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_gone_is_missed() {
        let files = ["#[test]\nfn a_page_is_a_page() {}\n", "fn other() {}"];
        let page = "| all pages | `a_page_is_a_page`, `a_page_is_no_page` |\n`short_name` and `a_b_c-d_e`";
        assert_eq!(missing("docs/a.md", page, &files), ["docs/a.md:1: there is no test a_page_is_no_page"]);
    }
}
