//! The refusal table is enforced by compile, by name, and whatever does not fit its declaration is refused too.

use crate::backend::cpu::Level;
use crate::backend::refusals::REFUSALS;
use crate::backend::{Backend, BackendError};
use crate::ops::Op;
use crate::program::{BufferKind, Dtype};

use super::session::Case;
use super::{all_cases, cpu};

fn compile(case: &Case) -> Result<(), BackendError> {
    let backend = cpu(1, Level::Scalar);
    for (id, buffer) in case.numbered() {
        backend.alloc(id, &buffer.decl)?;
    }
    backend.compile(&case.program()).map(drop)
}

#[test]
fn compile_refuses_every_pair_of_the_table_by_name() {
    let ours = REFUSALS.iter().filter(|refusal| refusal.backends.contains(&"cpu"));
    for (refusal, &dtype) in ours.flat_map(|refusal| refusal.dtypes.iter().map(move |dtype| (refusal, dtype))) {
        let mut case = all_cases()
            .into_iter()
            .find(|case| case.tested == refusal.op || case.steps.iter().any(|op| op.name() == refusal.op))
            .unwrap_or_else(|| panic!("no case has {}", refusal.op));
        for buffer in &mut case.buffers {
            if matches!(buffer.decl.kind, BufferKind::Weight | BufferKind::Kv) {
                buffer.decl.dtype = dtype;
            }
        }
        case.steps.retain(|op| op.name() == refusal.op);
        let reason = refusal.reason.to_owned();
        assert_eq!(compile(&case), Err(BackendError::Unsupported { backend: "cpu", op: refusal.op, reason }));
    }
}

#[test]
fn an_output_that_is_also_an_input_is_refused() {
    let mut case = all_cases().into_iter().find(|case| case.tested == "linear").unwrap();
    let Some(Op::Linear { input, out, .. }) = case.steps.first_mut() else { panic!("a linear case has a linear") };
    (out.buffer, out.offset) = (input.buffer, 0);
    case.buffers[0].decl.kind = BufferKind::Scratch;
    let refused = compile(&case).unwrap_err().to_string();
    assert_eq!(refused, "linear: PortIn 0 is an output and also something else");
}

#[test]
fn a_weight_of_another_shape_is_refused() {
    let mut case = all_cases().into_iter().find(|case| case.tested == "linear").unwrap();
    case.buffers[1].decl.cols += 1;
    let refused = compile(&case).unwrap_err().to_string();
    assert_eq!(refused, "linear: Weight 1 is (Weight, 1, 2); needed: a weight of ≥ 1 × 1");
}

#[test]
fn an_unknown_buffer_is_refused() {
    let mut case = all_cases().into_iter().find(|case| case.tested == "add").unwrap();
    case.buffers.truncate(2);
    assert_eq!(compile(&case), Err(BackendError::Misuse("add: buffer 2 is not allocated".into())));
    assert_eq!(case.buffers[0].decl.dtype, Dtype::F32);
}
