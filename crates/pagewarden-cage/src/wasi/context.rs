//! What a process has of WASI: its arguments, environment, directories and standard streams.

use wasmtime::Result;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx};

use super::bounce::Bounce;
use crate::setup::{Setup, Stdio};

/// A process's WASI. A forked child has one of its own with the same directories and streams; what else the parent had
/// open is not open in the child. Made by the first call.
pub(crate) struct Wasi {
    context: WasiP1Ctx,
    bounce: Option<Bounce>,
}

impl Default for Wasi {
    /// Without arguments, environment, directories, input or output.
    fn default() -> Self {
        Self { context: WasiCtx::builder().build_p1(), bounce: None }
    }
}

impl Wasi {
    /// What `setup` says, with calls that work on `bounce`.
    ///
    /// # Errors
    /// A directory that cannot be opened.
    pub(super) fn new(setup: &Setup, bounce: Bounce) -> Result<Self> {
        Ok(Self { context: context(setup)?, bounce: Some(bounce) })
    }

    pub(super) fn context(&mut self) -> &mut WasiP1Ctx {
        &mut self.context
    }

    pub(super) fn bounce(&self) -> Option<Bounce> {
        self.bounce.clone()
    }
}

/// Wasmtime's part of it.
pub(super) fn context(setup: &Setup) -> Result<WasiP1Ctx> {
    let mut builder = WasiCtx::builder();
    // The thread runs nothing but the cage.
    builder.allow_blocking_current_thread(true);
    builder.args(&setup.args).envs(&setup.env);
    for dir in &setup.dirs {
        builder.preopened_dir(&dir.host, &dir.guest, FsPerms::ReadWrite)?;
    }
    match &setup.stdio {
        Stdio::Nothing => {}
        Stdio::Inherited => {
            builder.inherit_stdio();
        }
        Stdio::Kept { input, output, errors } => {
            builder.stdin(MemoryInputPipe::new(input.clone())).stdout(output.pipe()).stderr(errors.pipe());
        }
    }
    Ok(builder.build_p1())
}
