//! The example, put to the test: what it tells, and that it ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::process::Command;

/// The example, which cargo builds beside the tests unless it is asked for this one alone.
fn example() -> Command {
    let here = std::env::current_exe().unwrap();
    let built = here.ancestors().nth(2).unwrap().join("examples/block_device");
    if built.exists() {
        return Command::new(built);
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--package", "pagewarden-vm-memory", "--example", "block_device"]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
}

#[test]
fn the_disk_serves_a_guest_that_cuts_its_memory() {
    let output = example().output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let wanted = [
        "device: a disk of 16 sectors",
        "driver: write sector 3: ok",
        "driver: read sector 3: ok, \"what the guest has written\"",
        "driver: read sector 99: I/O error",
        "driver: something unheard of: status 2",
        "device: Guest memory error: Bad address (os error 14)",
        "driver: read sectors 2 and 3 into memory that ends in between: I/O error",
        "driver: read sector 3 once more: ok, \"what the guest has written\"",
        "device: the driver has hung up after 6 requests",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), wanted, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
}
