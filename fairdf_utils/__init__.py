"""Fair deepfake detection: the package behind the notebook book."""
