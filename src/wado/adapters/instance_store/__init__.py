"""Instance stores."""
