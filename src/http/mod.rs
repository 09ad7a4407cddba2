//! placeholder until merge
use tokio_util::sync::CancellationToken;
pub async fn serve(
    _app: crate::app::App,
    _l: tokio::net::TcpListener,
    _s: CancellationToken,
) -> std::io::Result<()> {
    Ok(())
}
