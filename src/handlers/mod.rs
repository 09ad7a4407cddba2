//! The built-in job types, one per file or folder.
//!
//! A handler reads and writes the record and the outside world; it never talks to Redis or HTTP
//! callers.

pub mod cleanup_data;
pub mod connection;
pub mod crm;
pub mod deliver_export;
pub mod deliver_webhook;
pub mod diagnostics;
pub mod email;
mod ending;
pub mod enrich;
pub mod enrich_account;
pub mod enrich_contact;
pub mod enrich_records;
pub mod export;
pub mod formula;
pub mod generate_report;
pub mod http_call;
pub mod import_csv;
mod later;
pub mod providers;
pub mod simulator;
mod spool;
pub mod undo_import;
pub mod verify_email;

use std::net::SocketAddr;
use std::time::Duration;

use crate::job::smtp_probe::SmtpProbe;
use crate::outbound::Caller;
use crate::sealed::Sealer;
use crate::worker::Handlers;
use cleanup_data::CleanupDataHandler;
use connection::Connections;
use crm::SyncCrm;
use deliver_export::DeliverExport;
use deliver_webhook::DeliverWebhook;
use email::SendEmailBatchHandler;
use enrich::Enricher;
use enrich_account::EnrichAccount;
use enrich_contact::EnrichContact;
use enrich_records::{EnrichPageHandler, EnrichRecordsHandler};
use export::{ExportCsvHandler, ExportDataHandler};
use generate_report::GenerateReportHandler;
use http_call::HttpCall;
use import_csv::{ImportCsvHandler, SourceOptions};
use undo_import::UndoImportHandler;
use verify_email::VerifyEmail;

/// What the built-in handlers need to know.
#[derive(Debug, Clone)]
pub struct BuiltinOptions {
    /// Where imports may read; exports are kept in its storage.
    pub source: SourceOptions,
    /// Opens secrets that are stored.
    pub sealer: Sealer,
    /// Where people outside reach this installation, for links in mails.
    pub public_url: Option<String>,
    /// Servers of DNS that are asked who takes mail; none: those that this machine asks.
    pub dns_servers: Vec<SocketAddr>,
    /// How long a provider of data may take for one answer, 30 seconds at most.
    pub provider_patience: Duration,
    /// How mail servers are asked whether a mailbox is there; none: they are not.
    pub smtp_probe: Option<SmtpProbe>,
    /// Also offer the diagnostic types.
    pub has_diagnostics: bool,
}

impl BuiltinOptions {
    /// Imports from there, secrets with the key of its directory, and no diagnostic types.
    pub fn new(source: SourceOptions) -> Self {
        Self {
            sealer: Sealer::new(None, source.storage.data_dir()),
            source,
            public_url: None,
            dns_servers: Vec::new(),
            provider_patience: providers::CALL_TIMEOUT,
            smtp_probe: None,
            has_diagnostics: false,
        }
    }
}

/// Handlers of every built-in type; the diagnostic ones only when asked for.
pub fn builtin(options: &BuiltinOptions) -> Handlers {
    let mut handlers = Handlers::default();
    handlers.add(ImportCsvHandler {
        source: options.source.clone(),
    });
    handlers.add(UndoImportHandler);
    let storage = options.source.storage.clone();
    let public_url = options.public_url.clone();
    handlers.add(ExportCsvHandler {
        storage: storage.clone(),
        public_url: public_url.clone(),
    });
    handlers.add(ExportDataHandler {
        storage: storage.clone(),
        public_url: public_url.clone(),
    });
    handlers.add(GenerateReportHandler {
        storage,
        public_url: public_url.clone(),
    });
    handlers.add(CleanupDataHandler);
    let caller = Caller::new(options.source.allow_private_addresses);
    handlers.add(DeliverWebhook::new(caller.clone(), options.sealer.clone()));
    let connections = Connections::new(options.sealer.clone());
    handlers.add(HttpCall::new(caller.clone(), connections.clone()));
    // One for all: they share tokens.
    let patience = options.provider_patience;
    let enricher = Enricher::new(caller.clone(), connections.clone(), patience);
    handlers.add(EnrichAccount {
        enricher: enricher.clone(),
    });
    handlers.add(EnrichContact {
        enricher: enricher.clone(),
    });
    handlers.add(EnrichPageHandler { enricher });
    handlers.add(EnrichRecordsHandler);
    handlers.add(DeliverExport {
        caller: caller.clone(),
        connections: connections.clone(),
        public_url: public_url.clone(),
    });
    handlers.add(SyncCrm::new(caller.clone(), connections.clone()));
    handlers.add(SendEmailBatchHandler {
        caller,
        connections,
        public_url,
    });
    let verify = VerifyEmail::new(&options.dns_servers);
    handlers.add(match &options.smtp_probe {
        Some(probe) => verify.probing(probe, options.source.allow_private_addresses),
        None => verify,
    });
    if options.has_diagnostics {
        diagnostics::add(&mut handlers);
    }
    handlers
}
