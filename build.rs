//! Rebuilds the program when a migration or a script was added.

fn main() {
    // A new migration must reach the program that carries them.
    println!("cargo:rerun-if-changed=migrations");
}
