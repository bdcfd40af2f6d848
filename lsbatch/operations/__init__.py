"""One module for each verb: functions of ports and values that return a report. No click, no print, no SDK."""
