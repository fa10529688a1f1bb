use pagewarden_linux::oracle::*;
use std::collections::BTreeMap;
#[test]
fn stats() {
    let dir = tempfile::tempdir().unwrap();
    let runner = Runner {
        guest: env!("CARGO_BIN_EXE_memcalls").into(),
        directory: dir.path().to_owned(),
        timeout: std::time::Duration::from_secs(100),
    };
    let programs: Vec<Program> = (0..3000).map(|s| generate(s, 40)).collect();
    let t = runner.run(Side::Native, &programs).unwrap();
    let mut m: BTreeMap<String, usize> = BTreeMap::new();
    for (p, t) in programs.iter().zip(&t) {
        for l in &t.lines {
            let Some((i, rest)) = l.split_once(' ') else { continue };
            let Ok(i) = i.parse::<usize>() else { continue };
            let Some(s) = p.steps.get(i) else { continue };
            if !["remap_pages", "process_madvise", "seal"].contains(&s.call.name()) {
                if !s.args.iter().any(|a| matches!(a, Arg::File(f) if f.name().starts_with("seal"))) {
                    continue;
                }
            }
            let k = if rest.starts_with("=") {
                if s.call.name() == "process_madvise" {
                    format!("= {}", if rest.ends_with("= 0x0") { "0" } else { "n" })
                } else {
                    "=".into()
                }
            } else {
                rest.to_string()
            };
            *m.entry(format!("{} {}", s.call.name(), k)).or_default() += 1;
        }
    }
    for (k, v) in m {
        println!("{k}: {v}");
    }
}
