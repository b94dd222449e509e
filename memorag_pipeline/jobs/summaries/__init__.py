"""Jobs of kind summaries: plan, recall key points, summarize parts, merge, load; and the same in process."""
