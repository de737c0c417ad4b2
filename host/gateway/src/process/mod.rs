//! Settings of this process that concern the kernel: scheduling priority, memory, folder
//! permissions.
//!
//! This module does not know: requests, filters, configuration.

pub mod memory;
pub mod priority;
pub mod private_folder;
