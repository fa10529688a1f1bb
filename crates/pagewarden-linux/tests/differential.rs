//! placeholder
use pagewarden_linux::oracle::{Side, compare::Runner, generate};
#[test]
fn quick() {
    let dir = std::env::temp_dir().join("oracle-quick");
    std::fs::create_dir_all(&dir).unwrap();
    let runner = Runner {
        guest: env!("CARGO_BIN_EXE_memcalls").into(),
        directory: dir,
        timeout: std::time::Duration::from_secs(60),
    };
    let programs: Vec<_> = (0..3000).map(|seed| generate(seed, 40)).collect();
    let calls: usize = programs.iter().map(|p| p.calls()).sum();
    let t = std::time::Instant::now();
    let a = runner.run(Side::Native, &programs).unwrap();
    println!("{calls} {:?}", t.elapsed());
    let b = runner.run(Side::Native, &programs).unwrap();
    let mut bad = 0;
    for i in 0..programs.len() {
        if a[i] != b[i] {
            bad += 1;
            if bad < 5 {
                println!(
                    "{i}\n{}",
                    pagewarden_linux::oracle::Difference {
                        program: programs[i].clone(),
                        left: a[i].clone(),
                        right: b[i].clone()
                    }
                );
            }
        }
    }
    println!("bad {bad}");
    std::fs::write(
        "/tmp/oracle-out.txt",
        programs
            .iter()
            .zip(&a)
            .map(|(p, t)| {
                let mut s = String::new();
                for l in &t.lines {
                    let st = l.split(' ').next().and_then(|n| n.parse::<usize>().ok()).and_then(|n| p.steps.get(n));
                    s += &format!("{l}    {}\n", st.map(|s| s.to_string()).unwrap_or_default());
                }
                s + "====\n"
            })
            .collect::<String>(),
    )
    .unwrap();
}
