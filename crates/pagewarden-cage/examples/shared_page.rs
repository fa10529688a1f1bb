//! Builds a C program, `shared_page.c`, and runs it in a cage: it mallocs, maps a shared page, forks, and talks to its child.
//!
//! The Debian packages clang, lld, wasi-libc, libclang-rt-dev-wasm32 and binaryen are needed.
use std::error::Error;
use std::path::Path;
use std::process::Command;

use pagewarden_cage::{CageOptions, Cages, Setup, Stdio};

fn main() -> Result<(), Box<dyn Error>> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir()?;
    let module = folder.path().join("shared_page.wasm");
    let mut compiler = Command::new(crate_folder.join("guest/pagewarden-cc"));
    compiler.arg("-O2").arg(crate_folder.join("examples/shared_page.c")).arg("-o").arg(&module);
    if !compiler.status()?.success() {
        return Err("the program was not built".into());
    }

    let cages = Cages::new(&CageOptions { commit_limit: Some(16 << 20), ..CageOptions::default() })?;
    let program = cages.load(&std::fs::read(&module)?, "shared_page")?;
    let setup = Setup { args: vec!["shared_page".into()], stdio: Stdio::Inherited, ..Setup::default() };
    let exit = cages.start(&program, setup)?.run()?;
    println!("it ended with {}, and its map was", exit.code);
    print!("{}", exit.maps);
    Ok(())
}
