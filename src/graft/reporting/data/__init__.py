"""reports/data: what people should know of their images before they train."""
