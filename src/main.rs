//! The binary: everything is in the library, but for the allocator, which is a program's to choose.

use std::process::ExitCode;

/// A call makes some hundred small allocations and frees them soon: see docs/adr/0021.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    outrigger::cli::main()
}
