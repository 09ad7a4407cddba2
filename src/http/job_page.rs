//! What a page of jobs looks like, and the parameter of its search that has no name.

use serde::Serialize;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, ParameterStyle};
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr, Required};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

use super::job_filter::PATHS_MAX;
use crate::record::jobs::JobRow;
use crate::record::list::JobHead;

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobPage {
    /// With `include=payload` whole jobs.
    pub(super) jobs: Jobs,
    pub(super) pagination: Pagination,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Jobs {
    Heads(Vec<JobHead>),
    Whole(Vec<JobRow>),
}

/// None of both is both: one must match, and not exactly one, as is said of an enum.
impl PartialSchema for Jobs {
    fn schema() -> RefOr<Schema> {
        let all_of = |name| ArrayBuilder::new().items(Ref::from_schema_name(name));
        let either = AnyOfBuilder::new()
            .item(all_of(JobHead::name()))
            .item(all_of(JobRow::name()));
        Schema::from(either).into()
    }
}

impl ToSchema for Jobs {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((JobHead::name().into_owned(), JobHead::schema()));
        schemas.push((JobRow::name().into_owned(), JobRow::schema()));
        JobHead::schemas(schemas);
        JobRow::schemas(schemas);
    }
}

/// Where the page stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pagination {
    pub(super) limit: i64,
    /// What `before` must be for the next page.
    pub(super) next: Option<Uuid>,
    #[serde(rename = "hasMore")]
    pub(super) has_more: bool,
    /// If it was asked for by its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) page: Option<i64>,
}

/// `payload.PATH=VALUE`: names that only the caller knows, so they are one parameter that is an
/// object, whose members stand in the query one by one.
pub(super) struct PayloadPaths;

impl IntoParams for PayloadPaths {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let name = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(r"^payload\.[^.\x00]+(\.[^.\x00]+)*$"));
        let value = ObjectBuilder::new().schema_type(Type::String);
        let all = ObjectBuilder::new()
            .property_names(Some(Schema::from(name)))
            .additional_properties(Some(Schema::from(value)))
            .max_properties(Some(PATHS_MAX));
        let about = "`payload.PATH=VALUE`, up to five: what stands in the payload, as text; \
            `payload.to.name=Ada`";
        let parameter = ParameterBuilder::new()
            .name("payload")
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(about))
            .style(Some(ParameterStyle::Form))
            .explode(Some(true))
            .schema(Some(Schema::from(all)));
        vec![parameter.build()]
    }
}
