//! Compiles the .proto files with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 3] = [
        "proto/shoal/inference/v1alpha1/inference.proto",
        "proto/shoal/shard/v1alpha1/shard.proto",
        "proto/shoal/shard/v1alpha1/placement.proto",
    ];
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("shoal.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().bytes(".shoal.shard.v1alpha1").compile_fds(descriptors)?;
    Ok(())
}
