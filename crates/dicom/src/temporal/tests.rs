use proptest::prelude::*;

use super::*;

fn date(text: &str) -> Option<(String, String)> {
    Date::parse(text).map(|p| (p.first.to_string(), p.last.to_string()))
}

fn time(text: &str) -> Option<(String, String)> {
    Time::parse(text).map(|p| (p.first.to_string(), p.last.to_string()))
}

fn pair(first: &str, last: &str) -> Option<(String, String)> {
    Some((first.into(), last.into()))
}

#[test]
fn dates_and_the_periods_that_short_ones_name() {
    assert_eq!(date("20240229"), pair("20240229", "20240229"));
    assert_eq!(date("2024.02.29 "), pair("20240229", "20240229"));
    assert_eq!(date("202402"), pair("20240201", "20240229"));
    assert_eq!(date("1900"), pair("19000101", "19001231"));
    for bad in [
        "",
        "20230229",
        "19000229",
        "20241301",
        "20240100",
        "2024010",
        "2024-01-01",
        "202400",
        "20240101x",
        "+2024101",
        "2024.1.01",
        "١٢٣٤",
        "00000000",
    ] {
        assert_eq!(date(bad), None, "{bad}");
    }
}

#[test]
fn times_and_the_periods_that_short_ones_name() {
    assert_eq!(time("10"), pair("100000.000000", "105959.999999"));
    assert_eq!(time("1030"), pair("103000.000000", "103059.999999"));
    assert_eq!(time("10:30"), pair("103000.000000", "103059.999999"));
    assert_eq!(time("103015"), pair("103015.000000", "103015.999999"));
    assert_eq!(time("103015."), pair("103015.000000", "103015.999999"));
    assert_eq!(time("10:30:15.5"), pair("103015.500000", "103015.599999"));
    assert_eq!(time("103015.123456 "), pair("103015.123456", "103015.123456"));
    assert_eq!(time("103015.1234567"), pair("103015.123456", "103015.123456"));
    assert_eq!(time("235960").map(|t| t.0), Some("240000.000000".into()));
    for bad in ["", "1", "24", "1060", "103061", "1030.5", "10:3", "10:30:15:1", "103015.x", "-1"] {
        assert_eq!(time(bad), None, "{bad}");
    }
}

#[test]
fn points_in_time_are_compared_in_utc() {
    let berlin = UtcOffset::parse("+0100").unwrap_or(UtcOffset::ZERO);
    let show = |text: &str, offset| DateTime::parse(text, offset).map(|p| (p.first.to_string(), p.last.to_string()));
    assert_eq!(show("20240101003000", Some(berlin)), pair("20231231233000.000000", "20231231233000.999999"));
    assert_eq!(show("20240101003000-0500", Some(berlin)), pair("20240101053000.000000", "20240101053000.999999"));
    assert_eq!(show("20240101003000.25", None), pair("20240101003000.250000", "20240101003000.259999"));
    assert_eq!(show("202402", None), pair("20240201000000.000000", "20240229235959.999999"));
    assert_eq!(show("2024+0000", Some(berlin)), pair("20240101000000.000000", "20241231235959.999999"));
    assert_eq!(show("2024010110", None), pair("20240101100000.000000", "20240101105959.999999"));
    for bad in
        ["", "+0100", "20240101+1500", "20240101-1300", "20240101+0160", "202401011", "20240101 10", "2024.01.01"]
    {
        assert_eq!(show(bad, None), None, "{bad}");
    }
    assert_eq!(DateTime::parse("19700101000001", None).map(|p| p.first.micros()), Some(1_000_000));
}

#[test]
fn a_local_clock_reads_the_same_point_otherwise() {
    let point = DateTime::parse("20240229233000+0100", None).map(|p| p.first);
    let tokyo = UtcOffset::parse("+0900").unwrap_or(UtcOffset::ZERO);
    let shown = point.and_then(|p| p.at(tokyo)).map(|(date, time)| format!("{date} {time}"));
    assert_eq!(shown.as_deref(), Some("20240301 073000.000000"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,30}") {
        let _ = (Date::parse(&text), Time::parse(&text), DateTime::parse(&text, None), UtcOffset::parse(&text));
    }

    #[test]
    fn every_day_comes_back(days in -719_528i64..2_932_896) {
        let date = Date::of_days(days);
        prop_assert_eq!(date.map(Date::days), Some(days));
        let next = Date::of_days(days + 1);
        prop_assert!(next.is_none_or(|next| Some(next) > date));
    }

    #[test]
    fn text_order_is_time_order(a in 0u64..86_400_000_000, b in 0u64..86_400_000_000) {
        prop_assert_eq!(Time(a).cmp(&Time(b)), Time(a).to_string().cmp(&Time(b).to_string()));
        prop_assert_eq!(Time::parse(&Time(a).to_string()).map(|p| (p.first, p.last)), Some((Time(a), Time(a))));
    }
}
