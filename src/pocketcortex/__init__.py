"""From recordings of visual cortex to models small enough to understand."""
