//! The constant that an offset expression stands for.

use wasmparser::{ConstExpr, Operator};

/// The value of a valid expression of type `i32`, unless it depends on globals.
pub(super) fn constant(expression: &ConstExpr<'_>) -> Option<u32> {
    let mut stack: Vec<i32> = Vec::new();
    for operator in expression.get_operators_reader() {
        let combine: fn(i32, i32) -> i32 = match operator.ok()? {
            Operator::I32Const { value } => {
                stack.push(value);
                continue;
            }
            Operator::I32Add => i32::wrapping_add,
            Operator::I32Sub => i32::wrapping_sub,
            Operator::I32Mul => i32::wrapping_mul,
            Operator::End => break,
            _ => return None,
        };
        let right = stack.pop()?;
        let left = stack.pop()?;
        stack.push(combine(left, right));
    }
    stack.pop().map(i32::cast_unsigned)
}
