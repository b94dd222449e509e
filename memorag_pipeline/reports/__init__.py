"""What a run did, as a page for people and as numbers.

`leave` writes the report of a run into the store, `kept` finds and reads those that are there, `refresh` and `job`
gather the facts, `page` renders them; `overview` is the page of a corpus over all of its runs. No module loads torch.
"""
