//! Each rule catches what it is for, and nothing that only looks like it.
use super::*;

/// What `check` says about a file of the core with this after its first line.
fn problems(text: &str) -> Vec<String> {
    check("crates/pagewarden/src/file.rs", &format!("//! A file.\n{text}"))
}

fn catches(text: &str, what: &str) {
    let found = problems(text);
    assert!(found.len() == 1 && found[0].contains(what), "{text:?} gives {found:?}");
}

fn passes(text: &str) {
    assert_eq!(problems(text), Vec::<String>::new(), "{text:?}");
}

#[test]
fn length() {
    passes(&"\n".repeat(MAX_LINES - 1));
    catches(&"\n".repeat(MAX_LINES), "601 lines");
}

#[test]
fn opening() {
    let found = check("crates/pagewarden/src/file.rs", "use core::fmt;\n//! Late.\n");
    assert_eq!(found, ["crates/pagewarden/src/file.rs:1: does not open with //!"]);
}

#[test]
fn macros() {
    catches("fn f() { todo!() }", "todo!");
    catches("fn f() { unimplemented ! (\"later\") }", "unimplemented!");
    catches("fn f(x: u8) { dbg!(x); }", "dbg!");
    catches("fn f(x: u8) { todo.map(); std::dbg!(x); }", "dbg!");
    passes("// no todo!() here\nfn todo() -> &'static str { \"todo!()\" }\nfn my_dbg() {}\nlet not = todo != 1;");
}

#[test]
fn marks() {
    for mark in MARKS {
        catches(&format!("// {mark}: later"), mark);
        catches(&format!("/* {mark} */ fn f() {{}}"), mark);
        passes(&format!("const NAME: &str = \"{mark}\";\n// {mark}S are something else, /tmp/a.{mark}{mark}\n"));
    }
}

#[test]
fn unsafe_code() {
    catches("fn f() { unsafe { g() } }", ":2: unsafe");
    catches("unsafe fn f() {}", "unsafe");
    catches("unsafe impl Send for X {}", "unsafe");
    passes(
        "#![forbid(unsafe_code)]\n// unsafe { }\nconst A: &str = \"unsafe {\";\nconst B: &str = r#\"a\" unsafe {\"#;",
    );
    assert!(check("crates/pagewarden-linux/src/a.rs", "//! A.\nfn f() { unsafe { g() } }").is_empty());
    assert!(check("bench/src/pager/raw/a.rs", "//! A.\nfn f() { unsafe { g() } }").is_empty());
    assert_eq!(check("bench/src/pager/a.rs", "//! A.\nfn f() { unsafe { g() } }").len(), 1);
    assert!(check("kernel/src/trap/a.rs", "//! A.\nfn f() { unsafe { g() } }").is_empty());
    assert!(check("kernel/programs/src/bin/a.rs", "//! A.\nfn f() { unsafe { g() } }").is_empty());
    assert_eq!(check("kernel/loader/src/a.rs", "//! A.\nfn f() { unsafe { g() } }").len(), 1);
    assert_eq!(check("kernel/build.rs", "//! A.\nfn f() { unsafe { g() } }").len(), 1);
    assert_eq!(check("xtask/src/a.rs", "//! A.\nfn f() { unsafe { g() } }").len(), 1);
}

#[test]
fn ignored_tests() {
    catches("#[ignore]\nfn f() {}", ":2: a test");
    catches("#[test] #[ignore = \"slow\"]\nfn f() {}", "a test");
    catches("#[cfg_attr(debug_assertions, ignore)]\nfn f() {}", "a test");
    catches("/// ```ignore\n/// f();\n/// ```\nfn f() {}", "an example");
    passes("#[must_use]\nfn ignore() {}\n// #[ignore]\nconst A: &str = \"#[ignore]\";");
}

#[test]
fn characters_and_lifetimes_do_not_open_strings() {
    catches("fn f<'a>(x: &'a str) -> char { '\"' } fn g() { unsafe { h() } }", "unsafe");
    catches("const C: char = '\\''; const D: char = '\\u{22}'; unsafe fn f() {}", "unsafe");
    catches("const S: &str = \"\\\\\"; unsafe fn f() {}", "unsafe");
    catches("const S: &[u8] = br\"\\\"; unsafe fn f() {}", "unsafe");
    catches("/* a /* nested */ comment */ unsafe fn f() {}", "unsafe");
    passes("const S: &str = \"one \\\" unsafe\";\nconst T: &str = \"two\nunsafe lines\";");
}

#[test]
fn any_text_is_read() {
    for text in ["\"", "'", "'\\", "r#\"", "/*", "é'é", "'é", "b'", "\\", "#[", "r#type"] {
        problems(text);
    }
}
