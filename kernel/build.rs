//! How the kernel is linked, and the programs that are embedded in it.
//!
//! The programs are the files of the folder that `PAGEWARDEN_KERNEL_PROGRAMS` names. Without the variable there are none,
//! so that the kernel can be checked and linted alone.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

const PROGRAMS: &str = "PAGEWARDEN_KERNEL_PROGRAMS";
const LINK: &[&str] = &[
    "-nostdlib",
    "-nostartfiles",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,norelro",
    "-Wl,-z,max-page-size=4096",
    "-Wl,--no-dynamic-linker",
];

fn main() -> Result<(), Box<dyn Error>> {
    let script = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("link.ld");
    for argument in LINK {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", script.display());
    println!("cargo:rerun-if-env-changed={PROGRAMS}");
    let programs = match env::var_os(PROGRAMS) {
        Some(folder) => programs(Path::new(&folder))?,
        None => Vec::new(),
    };
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("programs.rs"), table(&programs)?)?;
    Ok(())
}

/// Names and files, in the order of the names.
fn programs(folder: &Path) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut programs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| format!("{name:?} is no name of a program"))?;
        programs.push((name, entry.path().canonicalize()?));
    }
    programs.sort();
    Ok(programs)
}

/// What reads an image may ask for its headers to be aligned, and `include_bytes!` aligns nothing.
fn table(programs: &[(String, PathBuf)]) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    if !programs.is_empty() {
        text.push_str("#[repr(C, align(8))]\nstruct Aligned<T: ?Sized>(T);\n\n");
    }
    text.push_str("/// Names and images, in the order of the names.\n");
    text.push_str("pub(crate) static PROGRAMS: &[(&str, &[u8])] = &[\n");
    for (name, path) in programs {
        let path = path.to_str().ok_or("the path of the programs is not UTF-8")?;
        write!(
            text,
            "    ({name:?}, {{\n        static IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!({path:?}));\n"
        )?;
        text.push_str("        &IMAGE.0\n    }),\n");
    }
    text.push_str("];\n");
    Ok(text)
}
