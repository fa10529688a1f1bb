//! Tells the linker to make programs that stand alone.
//!
//! They are linked as the kernel's loader wants them: at fixed addresses, no segment both writable and executable, and no
//! two in one page.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,--no-dynamic-linker",
        "-Wl,-z,norelro",
        "-Wl,-z,max-page-size=4096",
        "-Wl,-z,noexecstack",
        "-Wl,-z,separate-code",
        "-Wl,--strip-all",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
