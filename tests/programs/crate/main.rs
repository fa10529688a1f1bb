//! Prints one number.
fn main() {
    println!("{} and the crate done", small::squares(100));
}
