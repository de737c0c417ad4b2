//! The code of a dispatcher: a function that calls the table entry of an index directly.
//!
//! Its parameters are those of the callee and the index. Few entries are compared in sequence,
//! dense entries use a jump table, and sparse entries are split in two halves. If no entry matches,
//! the call goes through the table and traps there as before. This module does not know: where
//! dispatchers are called.

use wasm_encoder::{BlockType, Function, Instruction};

use super::analysis::Target;
use crate::optimize::encode::load_parameters;

/// The longest jump table, as a multiple of the number of its entries.
const SPARSITY_MAX: usize = 16;
/// The longest jump table. Engines limit the labels of a branch.
const LABELS_MAX: usize = 50_000;
/// Up to this many entries are compared in sequence.
const SEQUENCE_MAX: usize = 3;

/// The body for `targets`, which are sorted by index. `parameters` is the number of parameters of
/// the callee; `ty` and `table` are those of the indirect call that the dispatcher replaces.
pub(super) fn body(targets: &[Target], parameters: u32, ty: u32, table: u32) -> Function {
    let mut body = Body { function: Function::new([]), parameters };
    body.find(targets);
    load_parameters(&mut body.function, parameters);
    body.load_index();
    body.function.instructions().call_indirect(table, ty).end();
    body.function
}

struct Body {
    function: Function,
    parameters: u32,
}

impl Body {
    fn load_index(&mut self) {
        self.function.instruction(&Instruction::LocalGet(self.parameters));
    }

    fn call(&mut self, function: u32) {
        load_parameters(&mut self.function, self.parameters);
        self.function.instruction(&Instruction::ReturnCall(function));
    }

    /// Calls the target with the index, or continues if there is none.
    fn find(&mut self, targets: &[Target]) {
        let (Some(first), Some(last)) = (targets.first(), targets.last()) else { return };
        let span = (last.index - first.index) as usize;
        if targets.len() <= SEQUENCE_MAX {
            for target in targets {
                self.load_index();
                self.function.instructions().i32_const(target.index.cast_signed()).i32_eq().if_(BlockType::Empty);
                self.call(target.function);
                self.function.instructions().end();
            }
        } else if span <= (targets.len() * SPARSITY_MAX).min(LABELS_MAX) {
            self.jump(targets, first.index, last.index);
        } else {
            let (low, high) = targets.split_at(targets.len() / 2);
            self.load_index();
            self.function.instructions().i32_const(high[0].index.cast_signed()).i32_lt_u().if_(BlockType::Empty);
            self.find(low);
            self.function.instructions().else_();
            self.find(high);
            self.function.instructions().end();
        }
    }

    /// Like [`Self::find`], with a jump table from the index `first` to `last`.
    fn jump(&mut self, targets: &[Target], first: u32, last: u32) {
        let mut functions: Vec<u32> = targets.iter().map(|target| target.function).collect();
        functions.sort_unstable();
        functions.dedup();
        let none = functions.len() as u32;
        let mut labels = vec![none; (last - first) as usize + 1];
        for target in targets {
            let label = functions.partition_point(|function| *function < target.function);
            labels[(target.index - first) as usize] = label as u32;
        }
        for _ in 0..=none {
            self.function.instructions().block(BlockType::Empty);
        }
        self.load_index();
        self.function.instructions().i32_const(first.cast_signed()).i32_sub().br_table(labels, none);
        for function in functions {
            self.function.instructions().end();
            self.call(function);
        }
        self.function.instructions().end();
    }
}
