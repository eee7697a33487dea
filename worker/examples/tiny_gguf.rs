//! Writes the random GGUF models that `tests/gen/llama.py` compares: `tiny_gguf NAME FILE`.

#[path = "../tests/common/compared.rs"]
mod compared;
#[path = "../tests/common/families.rs"]
mod families;
#[path = "../tests/common/gguf.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod gguf;
#[path = "../tests/common/noise.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod noise;
#[path = "../tests/common/tiny.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod tiny;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, path] = arguments.as_slice() else { anyhow::bail!("tiny_gguf NAME FILE") };
    let model =
        compared::compared(name).ok_or_else(|| anyhow::anyhow!("{name:?} is none of {:?}", compared::COMPARED))?;
    std::fs::write(path, model.bytes())?;
    Ok(())
}
