"""Reports: one self-contained HTML page of text, tables, figures and code, and the charts we draw most."""

from dlc.report.charts import error_chart, ratio_chart, roofline_chart
from dlc.report.page import Report
from dlc.report.training import confusion_chart, training_chart, tuning_chart

__all__ = ["Report", "confusion_chart", "error_chart", "ratio_chart", "roofline_chart", "training_chart", "tuning_chart"]
