//! What concerns the kernel: scheduling priority, memory, folder permissions, the kind of files.
//!
//! This module does not know: requests, filters, configuration.

pub mod hardening;
pub mod memory;
pub mod priority;
pub mod private_folder;
pub mod regular_file;
pub mod sandbox;
