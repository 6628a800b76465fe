"""The parts behind `notifyd.testing`. Import them from there."""
