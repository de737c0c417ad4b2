//! The metrics as an OTLP message, made from the text that a scraper gets.
//!
//! Names are those of OpenMetrics: a receiver that offers them to Prometheus adds the suffixes that
//! a scrape of the gateway has. Values are cumulative since the start of the process, so a lost
//! message loses nothing. This module does not know: which metrics exist, when they are sent.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, exemplar, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::super::openmetrics::{MetricFamily, Sample, parse};
use super::resource::{attribute, scope};

/// The times of a message in nanoseconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct Times {
    /// The start of the process.
    pub(super) start: u64,
    pub(super) now: u64,
}

/// The message for a text of OpenMetrics.
pub(super) fn export_request(text: &str, resource: Resource, times: Times) -> ExportMetricsServiceRequest {
    let metrics = parse(text).into_iter().filter_map(|family| metric(&family, times)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
    let resource = Some(resource);
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
    }
}

fn metric(family: &MetricFamily<'_>, times: Times) -> Option<Metric> {
    if family.samples.is_empty() {
        return None;
    }
    let temporality = AggregationTemporality::Cumulative.into();
    let points = || family.samples.iter().map(|sample| number(sample, times)).collect();
    let data = match family.kind {
        "counter" => {
            metric::Data::Sum(Sum { data_points: points(), aggregation_temporality: temporality, is_monotonic: true })
        }
        "gauge" => metric::Data::Gauge(Gauge { data_points: points() }),
        "histogram" => metric::Data::Histogram(Histogram {
            data_points: histograms(&family.samples, times),
            aggregation_temporality: temporality,
        }),
        _ => return None,
    };
    let unit = match family.unit {
        "seconds" => "s",
        "bytes" => "By",
        unit => unit,
    };
    Some(Metric {
        name: family.name.into(),
        description: family.help.into(),
        unit: unit.into(),
        data: Some(data),
        ..Metric::default()
    })
}

fn number(sample: &Sample<'_>, times: Times) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        value: Some(number_data_point::Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    }
}

/// All labels but the bound of a bucket.
fn attributes(sample: &Sample<'_>) -> Vec<KeyValue> {
    let labels = sample.labels.iter().filter(|(name, _)| *name != "le");
    labels.map(|(name, value)| attribute(*name, Value::StringValue(value.clone().into_owned()))).collect()
}

/// Collects the sum, the count and the buckets of each series. Buckets are cumulative in the text,
/// and not in OTLP.
fn histograms(samples: &[Sample<'_>], times: Times) -> Vec<HistogramDataPoint> {
    let mut points: Vec<HistogramDataPoint> = vec![];
    let mut places: HashMap<Vec<(&str, &str)>, usize> = HashMap::new();
    for sample in samples {
        let labels = sample.labels.iter().filter(|(name, _)| *name != "le");
        let mut key: Vec<(&str, &str)> = labels.map(|(name, value)| (*name, value.as_ref())).collect();
        key.sort_unstable();
        let place = *places.entry(key).or_insert_with(|| {
            points.push(HistogramDataPoint {
                attributes: attributes(sample),
                start_time_unix_nano: times.start,
                time_unix_nano: times.now,
                ..HistogramDataPoint::default()
            });
            points.len() - 1
        });
        let point = &mut points[place];
        if sample.name.ends_with("_sum") {
            point.sum = Some(sample.value);
        } else if sample.name.ends_with("_count") {
            point.count = sample.value as u64;
        } else if sample.name.ends_with("_bucket") {
            let below: u64 = point.bucket_counts.iter().sum();
            point.bucket_counts.push((sample.value as u64).saturating_sub(below));
            if let Some(bound) = sample.label("le").parse::<f64>().ok().filter(|bound| bound.is_finite()) {
                point.explicit_bounds.push(bound);
            }
            point.exemplars.extend(exemplar(sample));
        }
    }
    points
}

fn exemplar(sample: &Sample<'_>) -> Option<Exemplar> {
    let (labels, value, seconds) = sample.exemplar.as_ref()?;
    let trace_id = labels.iter().find(|(name, _)| *name == "trace_id")?;
    Some(Exemplar {
        time_unix_nano: (seconds * 1e9) as u64,
        trace_id: hex::decode(trace_id.1.as_bytes()).ok()?,
        value: Some(exemplar::Value::AsDouble(*value)),
        ..Exemplar::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_counts_of_their_own() {
        let text = "# TYPE h histogram\n# UNIT h seconds\nh_sum{r=\"a\"} 1.5\nh_count{r=\"a\"} 3\n\
                    h_bucket{le=\"0.1\",r=\"a\"} 1\nh_bucket{le=\"1.0\",r=\"a\"} 2 # {trace_id=\"0f\"} 0.5 2.0\n\
                    h_bucket{le=\"+Inf\",r=\"a\"} 3\nh_count{r=\"b\"} 0\n# TYPE c counter\nc_total 7\n# EOF\n";
        let request = export_request(text, Resource::default(), Times { start: 1, now: 2 });
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let Some(metric::Data::Histogram(histogram)) = &metrics[0].data else { panic!("{metrics:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((histogram.data_points.len(), metrics[0].unit.as_str()), (2, "s"));
        assert_eq!((point.count, point.sum), (3, Some(1.5)));
        assert_eq!((&*point.bucket_counts, &*point.explicit_bounds), (&[1, 1, 1][..], &[0.1, 1.0][..]));
        assert_eq!((&*point.exemplars[0].trace_id, point.exemplars[0].time_unix_nano), (&[15][..], 2_000_000_000));
        let Some(metric::Data::Sum(sum)) = &metrics[1].data else { panic!("{metrics:?}") };
        assert!(sum.is_monotonic && metrics[1].name == "c");
    }
}
